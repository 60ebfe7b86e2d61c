"""The retriever as a tool that a model may call, in a LangGraph graph; `model` is any chat model that calls tools."""

from typing import Any

from langchain_core.prompts import PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, create_retriever_tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


def search_tool(retriever: BaseRetriever) -> BaseTool:
    return create_retriever_tool(
        retriever,
        "search_passages",
        "Passages that may answer a question.",
        document_prompt=PromptTemplate.from_template("{title}: {page_content}"),
    )


def agent(model: Any, retriever: BaseRetriever) -> Any:
    tool = search_tool(retriever)
    with_tool = model.bind_tools([tool])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [with_tool.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()
